"""Training loops. A model brings its network and a loss; `descent.descend` owns epochs, processes, checkpoints and
progress.
"""
