"""Start, watch and end the processes of a distributed MXNet job: scheduler, servers and workers.

Standard library only; nothing here imports mxnet or gluonzoo, so that it starts in milliseconds and runs on a
head node that has only Python. ``launch.py`` is the program, ``spec.py`` the data, the other modules the machinery.
"""
