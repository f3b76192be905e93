"""What several test folders use: runs on lab hosts, servers, documents. No module here holds tests."""
