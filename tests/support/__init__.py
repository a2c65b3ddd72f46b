"""What several test suites share: people with real Matrix clients."""
