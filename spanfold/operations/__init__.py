"""What commands do, with typed results: called by the command line, by HTTP and from Python."""
