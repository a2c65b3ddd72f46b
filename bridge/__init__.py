"""Carries mail and calendars: the outbox's mail channel becomes messages, and messages become delivered."""
