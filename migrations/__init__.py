"""Append-only steps that bring a database to today's schema; installs as `asif_lance.migrations`."""
