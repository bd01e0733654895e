"""Guests in virtual machines: a measured kernel, a disk under dm-verity, and a stream for all else.

`image.py` builds what a machine starts from (`disks.py`: its disk; `initrd.py`: what runs before that is
open), `qemu.py` starts it, `measure.py` says what evidence of it shows. What runs inside is `init`, then
`sealdeal.guest.boot`.
"""
