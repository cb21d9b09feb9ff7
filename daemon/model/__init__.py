"""What the service is about, as values: names, uploads, tasks. Nothing here touches a disk, a clock or a network."""
