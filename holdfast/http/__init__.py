"""HTTP between manager, agents and the command line: messages, servers, guards, the client."""
