"""Each service of a network as a process of its own: what they share is in `hosting`, each in its module.

A process imports the module of its own service and no other: what a service is not, it does not load.
"""
