"""What can be asked: the folds, the store that commits them, generations, queries."""
