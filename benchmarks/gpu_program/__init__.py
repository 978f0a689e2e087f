"""The programs that a GPU would run, compiled without one: what they are made of, and how long they take at least.

hlo           the text of a compiled program
cost          what an instruction reads, writes, multiplies and sends; custom_calls: those that XLA does not write
kernels       a program as the kernels that it starts, one after another
h100          the GPU: what XLA is told of it, and how fast it is taken to be
programs      what is compiled: the parts of a training step, and of inference
compiling     from there to text and sizes
figures       what a result keeps; areas, tables: what is printed
"""
