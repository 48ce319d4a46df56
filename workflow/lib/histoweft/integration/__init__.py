"""Joining sections: embeddings, joint clusters, scores."""
