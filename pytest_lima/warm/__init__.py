"""Warm start: ready VMs that are kept, and new VMs that wake up from them or boot clones."""
