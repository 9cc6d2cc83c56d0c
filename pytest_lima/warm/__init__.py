"""Warm start: ready VMs whose memory and disk are kept, and new VMs that wake up from them."""
