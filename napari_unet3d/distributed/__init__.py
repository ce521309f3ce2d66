"""Work that several processes, devices or machines share."""
