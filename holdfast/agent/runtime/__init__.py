"""What all of the agent uses: published state, jobs, the background writer, the clock."""
