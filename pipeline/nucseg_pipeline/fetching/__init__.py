"""What fetching is made of: what there is, how it comes over the network, how it is checked, where it is put."""
