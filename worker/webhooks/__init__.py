"""Telling webhooks what happens: the outbox is the worker's, and what leaves the machine the sender's."""
