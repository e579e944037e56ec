"""How the other libraries are called: one kind of door a file. None is imported before it is asked for."""
