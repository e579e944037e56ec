"""The symmetric matrix [[P, Aᵀ], [A, C]] with C diagonal: where its entries lie, and what its factorisation costs.

A layout is found once per structure; a batch of matrices is then a few scatters of the stored entries of P and A.
"""
