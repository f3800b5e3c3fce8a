"""What tests of several packages share: networks, servers, processes, and a model on paper."""
