"""Training: one loop, which is given a loss and batches; everything else is an argument of it.

Reading order: `recipe` (what can be set), `batch` (rows to tensors), `losses` (next token, answers,
preferences, a teacher), `optimizer` (parameter groups, schedule, float32 masters), `loop` (a step,
again and again), `saving` (checkpoints that resume to the bit), `routing_report` (what the experts
do), `metrics` (what is logged, and alarms), `subject` (the model a recipe names), `task` (a recipe
becomes model, batches and loss), `online` (preferences between the policy's own answers).
`ranks` is what the loop asks of other processes, `launched` joins those that torchrun started,
`stages` computes a step where they divide the layers; all else of it is in `hunyuan.parallel`.
`kernels` is what a CPU computes between matrix products; `lora` trains small adapters.

The model knows nothing of this: dropout, recomputation, adapters and kernels are put on from
outside or handed in.
"""
