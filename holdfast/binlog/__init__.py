"""Binary log files: reading them without a server, saving and cutting a pending tail."""
