"""Libraries to compare with, a module each. RecBole has an environment and a process of its own: `recbole_process`."""
