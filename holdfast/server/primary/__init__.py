"""A primary that takes or gives up its role: freezing, events, clients' sessions."""
