"""What is done before clients come to a server: accounts, limits, the first look at one that booted."""
