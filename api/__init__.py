"""The API: takes uploads over HTTP and makes them durable. It has a network and cannot reach Incus."""
