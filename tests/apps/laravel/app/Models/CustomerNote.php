<?php

namespace App\Models;

class CustomerNote extends CompanyRecord
{
}
