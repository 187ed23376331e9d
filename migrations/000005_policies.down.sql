DROP TABLE policies, policy_documents, skills;
