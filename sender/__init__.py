"""The process that sends webhooks: with network, without Incus, and without anything of the state."""
