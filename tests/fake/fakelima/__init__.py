"""A strict fake of limactl, of the VM it starts, and of the guest in that VM.

    control   what a test holds: scenarios, calls, what is left behind
    cli       limactl's commands, exactly as the engine calls them; lifecycle, templates,
              calling: parts of it
    agent     `limactl hostagent`: events, logs, pid files
    qemu      the accelerator's probe, and the process of a VM
    machine   the guest: boot, power, commands; cloudinit: its provision scripts
    disk      what it leaves on its disk
    sshd      its SSH server; sftp: its files; engines: its docker and containerd

The folder in ``FAKE_LIMA`` has what is between them: scenario.json, calls.jsonl and
unknown-calls.
"""
