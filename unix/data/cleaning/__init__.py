"""Cleaning of reports: prompts, endpoints, the client, the rule cleaner and the guards."""
