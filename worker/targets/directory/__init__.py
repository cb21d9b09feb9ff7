"""A directory in place of Incus: each instance is a subdirectory, and nothing leads out of it.

Paths are walked with directory descriptors and without following links in the kernel; a symbolic link is
resolved here, with the instance's directory as its root, as a chroot would.
"""
