"""What is done with a graph: abstract run, concrete run, search, blame. Reads ops only through their records."""
