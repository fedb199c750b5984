"""Speed, measured beside other implementations: commands, never imported by the rest."""
