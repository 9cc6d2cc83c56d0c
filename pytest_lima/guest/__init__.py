"""The inside of the VM: SSH, commands, files, readiness, sockets."""
