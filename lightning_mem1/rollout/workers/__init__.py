"""Episodes played outside of the process that trains: in processes of this machine, or on a Ray cluster."""
