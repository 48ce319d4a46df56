from histoweft.expression.leiden import cluster, stability, column_name
from histoweft.expression.leiden import leiden as _leiden, as_igraph
from histoweft.expression.neighbours import neighbour_graph
from histoweft.expression.umap import umap as _umap
def neighbours(X, n): return neighbour_graph(X, n)
def leiden(c, resolution, seed): return _leiden(as_igraph(c), resolution, seed=seed)
def umap(c, X, seed=0, min_dist=.5): return _umap(c, X, seed=seed, min_dist=min_dist)
