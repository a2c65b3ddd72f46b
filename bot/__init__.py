"""The bot in each pair's room: it listens, believes or doubts, answers, and delivers what the outbox has for Matrix.

`client`, `trust` and `rooms` carry Matrix; everything else here speaks in the values of `events`.
"""
