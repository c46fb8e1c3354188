"""What a run needs before it is started: memory, communication and time in closed form.

No torch and no device: a plan for a cluster is made on a laptop. Every figure says what it rests
on (`Basis`).
"""
