"""What operators see of the gateway: logs and metrics."""
