"""The host side: limactl, templates, what this machine can do."""
