import numpy as np
import scipy.sparse as sp

from histoweft.copies import fingerprints, first_of


def test_copies_point_at_the_first_row_that_holds_the_same():
    rows = np.array([[1, 0, 2], [0, 0, 0], [1, 0, 2], [2, 0, 1], [1, 0, 2], [0, 0, 0]])
    np.testing.assert_array_equal(first_of(fingerprints(sp.csr_matrix(rows))), [0, 1, 0, 3, 0, 1])


def test_stored_zeros_order_and_type_do_not_matter():
    plain = sp.csr_matrix(np.array([[1, 0, 2]], dtype=np.int32))
    odd = sp.csr_matrix((np.array([2.0, 0.0, 1.0], np.float32), np.array([2, 1, 0]), np.array([0, 3])), shape=(1, 3))
    assert fingerprints(plain)[0] == fingerprints(odd)[0]
    assert odd.nnz == 3
