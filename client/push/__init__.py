"""`incus-courier push`: files of this machine into an instance, by a service that may be anywhere."""
