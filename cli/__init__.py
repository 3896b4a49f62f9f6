"""The `asif-lance` command; installs as `asif_lance.cli`."""
