"""Workers: the containers that hold calls."""
