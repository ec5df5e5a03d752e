"""Many runs: the plan of a sweep, the driver that runs it in worker processes, and where its runs stand.

Imports neither torch nor a trainer; a worker process does.
"""
