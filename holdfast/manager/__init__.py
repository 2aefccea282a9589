"""The process that decides: it observes all agents, asks ``core.decide``, and has the steps carried out."""
