"""Talks browser: pages, the API, health and metrics. It decides nothing; `supervision` does."""
