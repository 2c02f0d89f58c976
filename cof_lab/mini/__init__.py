"""`cof data mini`: benchmarks of the embedded world in the published layouts of their models."""
