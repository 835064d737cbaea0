"""Stand-ins for the imports of released code, so that it runs on our operator unchanged."""
