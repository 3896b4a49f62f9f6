"""Append-only steps to today's schema; installs as `asif_lance.migrations`."""
